<?php
function render(string $template, array $values): void
{
    extract($values);
    require __DIR__ . '/../content/themes/' . THEME . "/$template.php";
}
