"""HTTP: the routes of both protocols, middleware, the OpenAPI document and the page for people."""
