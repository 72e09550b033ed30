#include "json.h"

#include <stdint.h>

/* The code point at `text`, and behind it the rest; U+FFFD for a byte that begins none. */
static uint32_t code_point(const unsigned char **text) {
  static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
  uint32_t first = *(*text)++;
  int more = first < 0x80 ? 0 : first >> 5 == 6 ? 1 : first >> 4 == 14 ? 2 : first >> 3 == 30 ? 3 : -1;
  if (more < 0) return 0xFFFD;
  uint32_t point = more ? first & (0x3Fu >> more) : first;
  const unsigned char *next = *text;
  for (int i = 0; i < more; i++) {
    if ((*next & 0xC0) != 0x80) return 0xFFFD;
    point = point << 6 | (*next++ & 0x3F);
  }
  if (point < least[more] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) return 0xFFFD;
  *text = next;
  return point;
}

void json_text(FILE *out, const char *text) {
  const unsigned char *rest = (const unsigned char *)text;
  fputc('"', out);
  while (*rest) {
    uint32_t point = code_point(&rest);
    if (point == '"' || point == '\\')
      fprintf(out, "\\%c", (int)point);
    else if (point >= 0x20 && point < 0x7F)
      fputc((int)point, out);
    else if (point < 0x10000)
      fprintf(out, "\\u%04x", (unsigned)point);
    else
      fprintf(out, "\\u%04x\\u%04x", (unsigned)(0xD7C0 + (point >> 10)), (unsigned)(0xDC00 + (point & 0x3FF)));
  }
  fputc('"', out);
}
