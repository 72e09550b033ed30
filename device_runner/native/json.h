#ifndef EDGEPRIVACY_JSON_H
#define EDGEPRIVACY_JSON_H

#include <stdio.h>

/* Write a text as a JSON string in ASCII; bytes that are no UTF-8 become U+FFFD. */
void json_text(FILE *out, const char *text);

#endif
