/* SHA-256 (FIPS 180-4), by the processor's own instructions where it has them. */
#ifndef EDGEPRIVACY_SHA256_H
#define EDGEPRIVACY_SHA256_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHA256_HEX 65

typedef struct {
  uint32_t state[8];
  uint64_t length;
  uint8_t block[64];
} sha256_t;

void sha256_start(sha256_t *hash);
void sha256_add(sha256_t *hash, const void *data, size_t size);
/* The digest in hex, with its final zero; the hash must be started again afterwards. */
void sha256_end(sha256_t *hash, char hex[SHA256_HEX]);

#ifdef __cplusplus
}
#endif

#endif
