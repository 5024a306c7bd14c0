// What both pages need: the session's WebSocket, and a place to tell the user how it went.

/** The address of a WebSocket of the provider, with this page's token, which then leaves the address bar. */
export function takeAddress(name) {
  const address = new URL(name + location.search, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  history.replaceState(null, "", location.pathname);
  return address.href;
}

export function tell(text) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.hidden = false;
}
