<?php
const SITE_NAME = 'Harbour Café';
const UPLOADS = __DIR__ . '/../content/uploads';
const THEME = 'current';
