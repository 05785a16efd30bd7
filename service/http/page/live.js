export function showLive(host) { host.textContent = 'soon'; } export function stopLive() {}
