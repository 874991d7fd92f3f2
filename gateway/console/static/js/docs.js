// Swagger UI with our own files and our own token; it asks nobody else to validate the document.

const token = document.querySelector('meta[name="csrf"]').content;

window.SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#swagger",
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: (request) => {
    request.headers["X-CSRF-Token"] = token;
    return request;
  },
});
