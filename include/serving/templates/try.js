// Shows the node's own description; a token that is entered stays in this page and is never stored.
SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#requests",
  deepLinking: true,
  docExpansion: "list",
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
