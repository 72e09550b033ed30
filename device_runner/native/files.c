#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner.h"

mapped_t map_file(const char *path) {
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe's open would wait for a writer */
  struct stat about;
  if (file < 0 || fstat(file, &about)) fail(EXIT_IO, "io", "cannot open %s: %s", path, strerror(errno));
  if (!S_ISREG(about.st_mode)) fail(EXIT_IO, "io", "%s is not a file", path);
  mapped_t result = {(const unsigned char *)"", (size_t)about.st_size};
  if (about.st_size) {
    void *memory = mmap(NULL, result.size, PROT_READ, MAP_PRIVATE, file, 0);
    if (memory == MAP_FAILED) fail(EXIT_IO, "io", "cannot read %s: %s", path, strerror(errno));
    result.bytes = memory;
  }
  close(file);
  return result;
}

void unmap_file(mapped_t file) {
  if (file.size) munmap((void *)file.bytes, file.size);
}

static void hash_mapped(mapped_t file, char hex[SHA256_HEX]) {
  sha256_t hash;
  sha256_start(&hash);
  sha256_add(&hash, file.bytes, file.size);
  sha256_end(&hash, hex);
}

size_t hash_file(const char *path, char hex[SHA256_HEX]) {
  mapped_t file = map_file(path);
  hash_mapped(file, hex);
  unmap_file(file);
  return file.size;
}

void check_hash(const char *path, const char *found, const char *meant) {
  if (meant && strcmp(found, meant))
    fail(EXIT_IO, "changed", "%s is another than was sent: %.16s, not %.16s", path, found, meant);
}

int print_hashes(int count, char **paths) {
  int code = EXIT_DONE;
  for (int i = 0; i < count; i++) {
    char hex[SHA256_HEX];
    if (access(paths[i], R_OK)) {
      code = EXIT_IO;
      continue;
    }
    hash_file(paths[i], hex);
    printf("%s  %s\n", hex, paths[i]);
  }
  if (fflush(stdout)) fail(EXIT_STORAGE, "storage", "cannot print: %s", strerror(errno));
  return code;
}

static void *hash_in_thread(void *argument) {
  hashing_t *hashing = argument;
  hash_mapped(hashing->file, hashing->sha256);
  return NULL;
}

void start_hashing(hashing_t *hashing, const char *path, mapped_t file, const char *meant) {
  *hashing = (hashing_t){.file = file, .path = path, .meant = meant};
  hashing->running = !pthread_create(&hashing->thread, NULL, hash_in_thread, hashing);
  if (!hashing->running) hash_in_thread(hashing);
}

const char *hash_when_done(hashing_t *hashing) {
  if (hashing->running) pthread_join(hashing->thread, NULL);
  hashing->running = 0;
  check_hash(hashing->path, hashing->sha256, hashing->meant);
  return hashing->sha256;
}
