import RFB from "./third_party/novnc/rfb.mjs";
import { takeAddress, showMessage } from "./session.mjs";

const credentials = JSON.parse(document.getElementById("credentials").textContent);
const desktop = new RFB(document.getElementById("screen"), takeAddress("vnc"), { credentials, wsProtocols: ["binary"] });
desktop.scaleViewport = true;
desktop.resizeSession = true;

desktop.addEventListener("connect", () => (document.documentElement.dataset.state = "connected"));
desktop.addEventListener("desktopname", (event) => (document.title = event.detail.name));
desktop.addEventListener("securityfailure", (event) => showMessage(`The desktop rejects the connection: ${event.detail.reason || "wrong password"}`));
desktop.addEventListener("credentialsrequired", () => {
  const password = prompt("The password of the desktop");
  desktop.sendCredentials({ password: password ?? "" });
});
desktop.addEventListener("disconnect", () => {
  document.documentElement.dataset.state = "closed";
  showMessage("The desktop is closed. Open a new session to go on.");
});
