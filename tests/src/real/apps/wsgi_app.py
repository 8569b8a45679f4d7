# Writes down each request, then answers it; with the query `hang` it never does,
# with `stuck` neither, in a deadlock outside of Python where no signal handler runs.
import ctypes
import os
import time

JOURNAL = os.open("journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)


def application(environ, start_response):
    target = environ["RAW_URI"]
    line = f"{time.monotonic_ns()} {os.getpid()} {environ['REMOTE_PORT']} {target}\n"
    os.write(JOURNAL, line.encode())
    while environ["QUERY_STRING"] == "hang":
        time.sleep(60)
    if environ["QUERY_STRING"] == "stuck":
        library = ctypes.CDLL(None)
        mutex = ctypes.create_string_buffer(64)
        library.pthread_mutex_lock(mutex)
        library.pthread_mutex_lock(mutex)
    start_response("200 OK", [("Content-Length", "7")])
    return [b"answer\n"]
