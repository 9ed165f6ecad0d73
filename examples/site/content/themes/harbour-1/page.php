<!doctype html>
<title><?= htmlspecialchars($title) ?> – <?= SITE_NAME ?></title>
<link rel="stylesheet" href="/content/themes/current/style.css">
<h1><?= htmlspecialchars($title) ?></h1>
<main><?= nl2br(htmlspecialchars($body)) ?></main>
