// A server of SockJS, the npm package: node sockjs_node.js PORT DISCONNECT_DELAY HEARTBEAT_DELAY (milliseconds).
// /echo sends back what it gets, "burst N" as N messages at once, and "close CODE" by closing. /greet says
// "hello" to whoever comes. /requests tells the paths of all requests so far.
const http = require('http');
const sockjs = require('sockjs');

const [port, disconnectDelay, heartbeatDelay] = process.argv.slice(2).map(Number);
const paths = [];
const server = http.createServer((request, response) => {
  response.statusCode = request.url === '/requests' ? 200 : 404;
  response.end(JSON.stringify(paths));
});
const echo = sockjs.createServer({
  prefix: '/echo', log: () => {}, disconnect_delay: disconnectDelay, heartbeat_delay: heartbeatDelay,
});
echo.on('connection', (client) => {
  client.on('data', (message) => {
    const [word, number] = message.slice(0, 20).split(' ');
    if (word === 'burst') {
      for (let count = 0; count < Number(number); count += 1) client.write(String(count));
    } else if (word === 'close') {
      client.close(Number(number), 'as you wish');
    } else {
      client.write(message);
    }
  });
});
echo.installHandlers(server);
const greet = sockjs.createServer({ prefix: '/greet', log: () => {} });
greet.on('connection', (client) => client.write('hello'));
greet.installHandlers(server);
// Behind the package's, which calls no other listener for what it answers itself.
server.prependListener('request', (request) => request.url === '/requests' || paths.push(request.url));
server.listen(port, '127.0.0.1', () => console.log('ready'));
