#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int takes_bytes(const job_t *job) { return !strcmp(job->input_type, "uint8"); }

static coding_t coding_of(const job_t *job, const model_t *model) {
  const tensor_t *input = &model->input;
  int fits = input->rank == job->row_rank + 1;
  for (int i = 0; fits && i < job->row_rank; i++)
    fits = input->shape[i + 1] == -1 || input->shape[i + 1] == (int64_t)job->row[i];
  if (!fits) fail(EXIT_ROWS, "rows", "the model takes rows of another shape");
  if (!strcmp(input->type, "float32")) return AS_FLOAT;
  if (!input->quantized) {
    if (strcmp(input->type, "uint8") || !takes_bytes(job))
      fail(EXIT_ROWS, "rows", "the model takes %s without a scale", input->type);
    return AS_GIVEN;
  }
  if (!(input->scale > 0) || !isfinite(input->scale))
    fail(EXIT_ROWS, "rows", "the input's scale is %g", (double)input->scale);
  if (!strcmp(input->type, "int8")) return AS_INT8;
  if (!strcmp(input->type, "uint8")) return AS_UINT8;
  if (!strcmp(input->type, "int16")) return AS_INT16;
  if (!strcmp(input->type, "int32")) return AS_INT32;
  fail(EXIT_ROWS, "rows", "the model takes inputs of type %s", input->type);
}

/* q = round half to even (x / scale) + zero point in float32, clipped: the arithmetic of inputs.py. Adding and
   taking away 1.5 * 2^23 rounds as rintf does, and without a call: beyond 2^21 all types but int32 are clipped.
   Not a number becomes the lowest. */
#define ROUNDED(q) (((q) + 12582912.0f) - 12582912.0f)
#define CLIPPED(q, low, high) ((q) >= (high) ? (high) : (q) > (low) ? (q) : (low))
#define ENCODE_AS(type, low, high, value)                                   \
  for (size_t i = 0; i < count; i++) {                                      \
    float q = CLIPPED((value) / scale, -2097152.0f, 2097152.0f);            \
    ((type *)output)[i] = (type)(int)CLIPPED(ROUNDED(q) + zero, low, high); \
  }
#define ENCODE(type, low, high)                          \
  if (bytes) ENCODE_AS(type, low, high, (float)bytes[i]) \
  else ENCODE_AS(type, low, high, floats[i])             \
  break

static void encode(coding_t coding, const tensor_t *tensor, const void *input, int is_bytes, size_t count,
                   void *output) {
  const float *floats = input, scale = tensor->scale, zero = (float)tensor->zero_point;
  const unsigned char *bytes = is_bytes ? input : NULL;
  switch (coding) {
    case AS_GIVEN:
      memcpy(output, input, count);
      break;
    case AS_FLOAT:
      if (!is_bytes)
        memcpy(output, input, count * sizeof *floats);
      else
        for (size_t i = 0; i < count; i++) ((float *)output)[i] = bytes[i];
      break;
    case AS_INT8:
      ENCODE(int8_t, -128.0f, 127.0f);
    case AS_UINT8:
      ENCODE(uint8_t, 0.0f, 255.0f);
    case AS_INT16:
      ENCODE(int16_t, -32768.0f, 32767.0f);
    case AS_INT32:
      for (size_t i = 0; i < count; i++) {
        float q = rintf((bytes ? (float)bytes[i] : floats[i]) / scale) + zero;
        ((int32_t *)output)[i] = (int32_t)CLIPPED(q, -2147483648.0f, 2147483520.0f);
      }
      break;
  }
}

void prepare_feed(feed_t *feed, const model_t *model, size_t most_rows) {
  feed->coding = coding_of(feed->job, model);
  feed->encoded = must_allocate(most_rows * feed->job->row_numbers * model->input.number_bytes + OVERREAD_BYTES);
}

const void *encoded_rows(feed_t *feed, const model_t *model, size_t first, size_t rows) {
  const job_t *job = feed->job;
  int is_bytes = takes_bytes(job);
  size_t width = job->row_numbers * (is_bytes ? 1 : sizeof(float));
  encode(feed->coding, &model->input, feed->rows.bytes + first * width, is_bytes, rows * job->row_numbers,
         feed->encoded);
  size_t row = job->row_numbers * model->input.number_bytes;
  if (rows < model->batch) memset(feed->encoded + rows * row, 0, (model->batch - rows) * row);
  return feed->encoded;
}

int goes_as_given(const feed_t *feed) {
  return feed->coding == AS_GIVEN || (feed->coding == AS_FLOAT && !takes_bytes(feed->job));
}
