export function showOperator(host) { host.textContent = 'soon'; } export function stopOperator() {}
