<?php
function page_by_slug(string $slug): array
{
    $file = __DIR__ . '/../content/pages/' . basename($slug) . '.md';
    if (!is_file($file)) {
        http_response_code(404);
        $file = __DIR__ . '/../content/pages/not-found.md';
    }
    $lines = file($file);
    return ['title' => ltrim(array_shift($lines), '# '), 'body' => implode('', $lines)];
}
