// Shows the service's document; its paths hold behind any prefix a proxy may add.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#operations",
  deepLinking: true,
  displayRequestDuration: true,
  showExtensions: false,
  tryItOutEnabled: true,
  validatorUrl: null, // no document leaves the machine
});
