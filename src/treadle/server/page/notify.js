// Notifications of the system, for a person who looks at something else.

/** Whether the person can be asked to allow them. */
export const canAsk = () => "Notification" in window && Notification.permission === "default";

/** Asks the person to allow them; must be called by a click. */
export const ask = () => Notification.requestPermission();

/** Says that a call of a conversation waits, if the page is hidden and the person allowed it. */
export function notify(threadId, title) {
  if (!document.hidden || !("Notification" in window) || Notification.permission !== "granted") return;
  try {
    const shown = new Notification(title, { body: "A call waits for your answer.", tag: threadId });
    shown.onclick = () => {
      focus();
      location.hash = `#/t/${encodeURIComponent(threadId)}`;
      shown.close();
    };
  } catch {
    // some browsers of phones have them for service workers only
  }
}
