// A backend that answers every request with nothing: what refuses a model of it is Triton's core, in milliseconds.
// The declarations are those of Triton's backend interface, as far as they are used.

#include <stdint.h>

void *TRITONBACKEND_ResponseNew(void **response, void *request);
void *TRITONBACKEND_ResponseSend(void *response, uint32_t flags, void *error);
void *TRITONBACKEND_RequestRelease(void *request, uint32_t flags);

void *TRITONBACKEND_ModelInstanceExecute(void *instance, void **requests, uint32_t count) {
  (void)instance;
  for (uint32_t index = 0; index < count; ++index) {
    void *response = 0;
    TRITONBACKEND_ResponseNew(&response, requests[index]);
    TRITONBACKEND_ResponseSend(response, 1 /* the last one */, 0);
    TRITONBACKEND_RequestRelease(requests[index], 1 /* all of it */);
  }
  return 0;
}
