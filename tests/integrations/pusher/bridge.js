// SockJS for a Pusher server that has none: each session becomes a websocket to it, as Pusher's own service does it.
// Usage: node bridge.js PORT, with the port of the Pusher server; prints its own port.
const http = require('http');
const sockjs = require('sockjs');
const WebSocket = require('ws');

const target = process.argv[2];
const server = http.createServer();
const bridge = sockjs.createServer({ prefix: '/pusher/app/[^/.]+', log: () => {} });
bridge.on('connection', (client) => {
  const key = client.url.split('/')[3];
  const waiting = [];
  const pusher = new WebSocket(`ws://127.0.0.1:${target}/app/${key}?protocol=7&client=bridge&version=1`);
  pusher.on('open', () => waiting.forEach((message) => pusher.send(message)));
  pusher.on('message', (message) => client.write(message.toString()));
  pusher.on('close', (code) => client.close(code, ''));
  pusher.on('error', () => client.close(1011, ''));
  client.on('data', (message) => (pusher.readyState === WebSocket.OPEN ? pusher.send(message) : waiting.push(message)));
  client.on('close', () => pusher.close());
});
bridge.installHandlers(server);
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
