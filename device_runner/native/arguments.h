#ifndef EDGEPRIVACY_ARGUMENTS_H
#define EDGEPRIVACY_ARGUMENTS_H

#include "runner.h"

/* Read the command line; --help and --version end the program, a mistake ends it with EXIT_USAGE. */
void read_arguments(int count, char **words, job_t *job);

#endif
