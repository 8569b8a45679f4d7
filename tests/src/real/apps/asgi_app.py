# Answers each request.


async def application(scope, receive, send):
    assert scope["type"] == "http"
    headers = [(b"content-length", b"7")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"answer\n"})
