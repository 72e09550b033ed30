/* Files that are mapped into memory, and their hashes. */
#ifndef EDGEPRIVACY_FILES_H
#define EDGEPRIVACY_FILES_H

#include <pthread.h>
#include <stddef.h>

#include "sha256.h"

typedef struct {
  const unsigned char *bytes;
  size_t size;
} mapped_t;

/* A file's bytes. Ends the program if it cannot be read. */
mapped_t map_file(const char *path);
void unmap_file(mapped_t file);
/* The hash of a file, and its size. */
size_t hash_file(const char *path, char hex[SHA256_HEX]);
/* `PROGRAM --hash FILE ...`: print what sha256sum prints, which is slow on most devices. Files that cannot be read
   are left out. The exit code. */
int print_hashes(int count, char **paths);
/* Before anything reads a file: end the program unless its hash is the one that was meant (NULL: any). */
void check_hash(const char *path, const char *found, const char *meant);

/* A file that is hashed beside other work. */
typedef struct {
  mapped_t file;
  const char *path, *meant;
  char sha256[SHA256_HEX];
  pthread_t thread;
  int running;
} hashing_t;

void start_hashing(hashing_t *hashing, const char *path, mapped_t file, const char *meant);
/* The hash, once it is there. Ends the program if it is not the one that was meant. */
const char *hash_when_done(hashing_t *hashing);

#endif
