export function showVersions(host) { host.textContent = 'soon'; } export function stopVersions() {}
