"""HTTP: the routes of both protocols, middleware, the OpenAPI document and the web page."""
