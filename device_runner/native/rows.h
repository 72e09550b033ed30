/* Rows as a model takes them. */
#ifndef EDGEPRIVACY_ROWS_H
#define EDGEPRIVACY_ROWS_H

#include "files.h"
#include "runner.h"

/* How a row's numbers become a model's: cast, quantized to a type, or not at all. */
typedef enum { AS_FLOAT, AS_INT8, AS_UINT8, AS_INT16, AS_INT32, AS_GIVEN } coding_t;

/* The job's rows on their way into one model. */
typedef struct {
  const job_t *job;
  mapped_t rows;
  coding_t coding;
  char *encoded; /* one batch, with zeros behind the rows */
} feed_t;

/* Learn what a model takes, and make room for so many rows. Ends the program if it cannot be given them. */
void prepare_feed(feed_t *feed, const model_t *model, size_t most_rows);
/* `rows` rows from `first` on, encoded; zeros up to the model's batch behind them. Valid until the next call. */
const void *encoded_rows(feed_t *feed, const model_t *model, size_t first, size_t rows);
/* Whether encoded rows are the bytes of the input. */
int goes_as_given(const feed_t *feed);

#endif
