// Shared by both pages: the address of the session's WebSocket, and a message for the user.

/** The address of a WebSocket of the provider, with this page's token, which is removed from the address bar. */
export function takeAddress(name) {
  const address = new URL(name + location.search, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  history.replaceState(null, "", location.pathname);
  return address.href;
}

export function showMessage(text) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.hidden = false;
}
