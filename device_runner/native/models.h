/* One model of a job, from its file to its output and its part of the report. */
#ifndef EDGEPRIVACY_MODELS_H
#define EDGEPRIVACY_MODELS_H

#include <stdio.h>

#include "files.h"
#include "runner.h"

/* Run all rows through model `number` of the job, write its output, and its object into the report. */
void run_model(const job_t *job, mapped_t rows, hashing_t *rows_hash, size_t number, FILE *report);

#endif
