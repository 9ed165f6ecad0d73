<?php
/**
 * Plugin Name: rfleet wait
 * Description: Answers an upload, or an edit of an image, when all web servers have the files.
 *
 * Copy this file to wp-content/mu-plugins/ on the primary, and let the web server's user run exactly this command, in
 * /etc/sudoers.d/rfleet-wait:
 *
 *     www-data ALL=(root) NOPASSWD: /usr/local/bin/rfleet -q wait --timeout 5s
 *
 * An upload never fails by this: where the files are not everywhere in time, or no agent runs, the log says so.
 */

defined('ABSPATH') || exit;

/** The command, word by word as in sudoers. */
const RFLEET_WAIT = 'sudo -n /usr/local/bin/rfleet -q wait --timeout 5s';

/** Waits once for all that this request has changed. */
function rfleet_wait(): void
{
    if (!function_exists('exec')) {
        error_log('rfleet: exec is among disable_functions, nothing is waited for');
        return;
    }
    $lines = [];
    $code = 1;
    exec(RFLEET_WAIT . ' 2>&1', $lines, $code);
    if ($code !== 0) {
        // 3: not everywhere in time, and which host is late. 1: no agent runs, or sudo does not allow it.
        error_log('rfleet: exit ' . $code . ': ' . implode(' ', $lines));
    }
}

/** Has the end of this request wait, however many sizes of an image there are. */
function rfleet_wait_at_the_end($data)
{
    // Before 1, where WordPress hands over the last of the answer.
    add_action('shutdown', 'rfleet_wait', 0);
    return $data;
}

// After an upload, for each size that is made of it, and after an edit in the media library.
add_filter('wp_handle_upload', 'rfleet_wait_at_the_end');
add_filter('wp_handle_sideload', 'rfleet_wait_at_the_end');
add_filter('wp_update_attachment_metadata', 'rfleet_wait_at_the_end');
