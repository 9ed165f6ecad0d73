<?php
// A page of a very small CMS. Only there to be synced.
require __DIR__ . '/lib/load.php';

$page = page_by_slug($_GET['page'] ?? 'home');
render('page', ['title' => $page['title'], 'body' => $page['body']]);
