<?php
// Writes down each request, then answers it; with the query `hang` it never does.
$line = hrtime(true) . ' ' . getmypid() . ' 0 ' . $_SERVER['REQUEST_URI'] . "\n";
file_put_contents(__DIR__ . '/journal', $line, FILE_APPEND);
while ($_SERVER['QUERY_STRING'] === 'hang') {
    sleep(60);
}
echo "answer\n";
