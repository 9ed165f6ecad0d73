<?php
require __DIR__ . '/pages.php';
require __DIR__ . '/render.php';
require __DIR__ . '/config.php';
