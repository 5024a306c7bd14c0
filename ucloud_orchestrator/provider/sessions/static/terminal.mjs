import { Terminal } from "./third_party/xterm/xterm.mjs";
import { FitAddon } from "./third_party/addon-fit/addon-fit.mjs";
import { takeAddress, showMessage } from "./session.mjs";

// Unacknowledged messages; the provider sends no more until the terminal has drawn them.
const WINDOW = 64;

const terminal = new Terminal({ cursorBlink: true, fontSize: 14, lineHeight: 1.2 });
const fit = new FitAddon();
terminal.loadAddon(fit);
terminal.open(document.getElementById("screen"));
fit.fit();
terminal.focus();

const socket = new WebSocket(takeAddress("shell"));
const opened = new Promise((resolve) => socket.addEventListener("open", resolve));
const size = () => ({ cols: terminal.cols, rows: terminal.rows });
let ended = false;

// Messages before the socket is open, such as early input, are sent in order once it is.
async function send(message) {
  await opened;
  if (socket.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify(message));
  }
}

send({ type: "initialize", ...size(), window: WINDOW });
socket.addEventListener("message", (event) => {
  const message = JSON.parse(event.data);
  if (message.type === "data") {
    terminal.write(message.data, () => send({ type: "ack", count: 1 }));
  } else if (message.type === "exit") {
    ended = true;
    showMessage(`The shell has ended with exit code ${message.code}.`);
  }
});
socket.addEventListener("close", (event) => {
  if (!ended) {
    showMessage(event.reason || "The terminal is closed. Open a new session to go on.");
  }
});
terminal.onData((data) => send({ type: "input", data }));
terminal.onResize(() => send({ type: "resize", ...size() }));
new ResizeObserver(() => fit.fit()).observe(document.getElementById("screen"));
