// Node's own http server with its shipped defaults. Arguments: port.
const http = require('http');
const server = http.createServer((request, response) => response.end('answer\n'));
server.listen(Number(process.argv[2]), '127.0.0.1');
