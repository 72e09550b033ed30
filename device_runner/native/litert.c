/* LiteRT's C interface, found by name in the library that it is given: no header and no link-time library.

   The interface is not stable from version to version: every type's size is asserted here, every function is
   looked up at the start, and the self-test runs a model before any other. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

const char *const program_name = "edgeprivacy-litert", *const runtime_name = "litert";

typedef int status_t; /* 0 is success */
typedef void *handle_t;
typedef struct {
  unsigned int rank : 7, has_strides : 1;
  int32_t dimensions[MOST_DIMENSIONS];
  uint32_t strides[MOST_DIMENSIONS];
} layout_t;
typedef struct {
  int32_t element;
  layout_t layout;
} ranked_t;
typedef struct {
  float scale;
  int64_t zero_point;
} per_tensor_t;
_Static_assert(sizeof(layout_t) == 68 && sizeof(ranked_t) == 72 && sizeof(per_tensor_t) == 16, "LiteRT's types");

enum { CPU = 1, PER_TENSOR = 1, LOCK_READ = 0, LOCK_WRITE = 1 };

#define FUNCTIONS(F)                                                                              \
  F(CreateEnvironment, (int, const void *, handle_t *))                                           \
  F(CreateModelFromFile, (handle_t, const char *, handle_t *))                                    \
  F(GetNumModelSignatures, (handle_t, size_t *))                                                  \
  F(GetModelSignature, (handle_t, size_t, handle_t *))                                            \
  F(GetNumSignatureInputs, (handle_t, size_t *))                                                  \
  F(GetNumSignatureOutputs, (handle_t, size_t *))                                                 \
  F(GetSignatureInputTensorByIndex, (handle_t, size_t, handle_t *))                               \
  F(GetSignatureOutputTensorByIndex, (handle_t, size_t, handle_t *))                              \
  F(GetTensorName, (handle_t, const char **))                                                     \
  F(GetRankedTensorType, (handle_t, ranked_t *))                                                  \
  F(GetQuantizationTypeId, (handle_t, int *))                                                     \
  F(GetPerTensorQuantization, (handle_t, per_tensor_t *))                                         \
  F(CreateOptions, (handle_t *))                                                                  \
  F(SetOptionsHardwareAccelerators, (handle_t, int))                                              \
  F(CreateOpaqueOptions, (const char *, void *, void (*)(void *), handle_t *))                    \
  F(AddOpaqueOptions, (handle_t, handle_t))                                                       \
  F(CreateCompiledModel, (handle_t, handle_t, handle_t, handle_t *))                              \
  F(CompiledModelIsFullyAccelerated, (handle_t, bool *))                                          \
  F(CompiledModelResizeInputTensor, (handle_t, size_t, size_t, const int *, size_t))              \
  F(GetCompiledModelInputTensorLayout, (handle_t, size_t, size_t, layout_t *))                    \
  F(GetCompiledModelOutputTensorLayouts, (handle_t, size_t, size_t, layout_t *, bool))            \
  F(GetCompiledModelInputBufferRequirements, (handle_t, size_t, size_t, handle_t *))              \
  F(GetCompiledModelOutputBufferRequirements, (handle_t, size_t, size_t, handle_t *))             \
  F(CreateManagedTensorBufferFromRequirements, (handle_t, const ranked_t *, handle_t, handle_t *)) \
  F(GetTensorBufferPackedSize, (handle_t, size_t *))                                              \
  F(LockTensorBuffer, (handle_t, void **, int))                                                   \
  F(UnlockTensorBuffer, (handle_t))                                                               \
  F(RunCompiledModel, (handle_t, size_t, size_t, handle_t *, size_t, handle_t *))
#define FREEING(F)                                                                                \
  F(DestroyModel, (handle_t)) F(DestroyOptions, (handle_t)) F(DestroyCompiledModel, (handle_t))   \
  F(DestroyTensorBuffer, (handle_t))
#define DECLARE_FUNCTION(name, arguments) static status_t(*name) arguments;
#define DECLARE_FREEING(name, arguments) static void(*name) arguments;
FUNCTIONS(DECLARE_FUNCTION)
FREEING(DECLARE_FREEING)

static handle_t environment;

typedef struct {
  handle_t model, options, compiled, input, output;
  size_t input_bytes, output_bytes;
} litert_t;

#define MUST(kind_code, kind, call)                                                        \
  do {                                                                                     \
    status_t status_ = (call);                                                             \
    if (status_) fail(kind_code, kind, "LiteRT refuses it: status %d of %s", status_, #call); \
  } while (0)
#define MODEL_MUST(call) MUST(EXIT_MODEL, "model", call)

static void *look_up(void *library, const char *name) {
  char symbol[96];
  snprintf(symbol, sizeof symbol, "LiteRt%s", name);
  void *found = dlsym(library, symbol);
  if (!found) fail(EXIT_LIBRARY, "library", "the library has no %s: it is of another version", symbol);
  return found;
}

void engine_start(const job_t *job) {
  if (job->library_count != 1) fail(EXIT_USAGE, "usage", "one --library is needed");
  /* With a slash: the file itself, not whatever the loader finds under the name. */
  char *path = must_allocate(strlen(job->libraries[0]) + 3);
  sprintf(path, "%s%s", strchr(job->libraries[0], '/') ? "" : "./", job->libraries[0]);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) fail(EXIT_LOAD, "library", "%s", dlerror());
#define FIND(name, arguments) *(void **)&name = look_up(library, #name);
  FUNCTIONS(FIND)
  FREEING(FIND)
  MUST(EXIT_LIBRARY, "library", CreateEnvironment(0, NULL, &environment));
}

static const char *type_name(int element, size_t *bytes) {
  static const struct {
    int element;
    const char *name;
    size_t bytes;
  } types[] = {{1, "float32", 4}, {2, "int32", 4}, {3, "uint8", 1},  {4, "int64", 8},   {6, "bool", 1},
               {7, "int16", 2},   {9, "int8", 1},  {10, "float16", 2}, {11, "float64", 8}};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (types[i].element == element) {
      *bytes = types[i].bytes;
      return types[i].name;
    }
  *bytes = 1;
  return "unknown";
}

static void set_shape(tensor_t *tensor, const layout_t *layout) {
  tensor->rank = (int)layout->rank;
  if (tensor->rank > MOST_DIMENSIONS) fail(EXIT_MODEL, "model", "a tensor of %d dimensions", tensor->rank);
  for (int i = 0; i < tensor->rank; i++) tensor->shape[i] = layout->dimensions[i];
}

static void read_tensor(handle_t handle, tensor_t *tensor, ranked_t *ranked) {
  const char *name = NULL;
  int quantization = 0;
  per_tensor_t grid;
  MODEL_MUST(GetTensorName(handle, &name));
  MODEL_MUST(GetRankedTensorType(handle, ranked));
  tensor->name = must_copy(name ? name : "");
  tensor->type = type_name(ranked->element, &tensor->number_bytes);
  set_shape(tensor, &ranked->layout);
  if (!GetQuantizationTypeId(handle, &quantization) && quantization == PER_TENSOR &&
      !GetPerTensorQuantization(handle, &grid)) {
    tensor->quantized = 1;
    tensor->scale = grid.scale;
    tensor->zero_point = grid.zero_point;
  }
}

/* Elements of a layout; 0 if it is no size that a model could have. */
static size_t elements(const layout_t *layout) {
  size_t count = 1;
  for (unsigned i = 0; i < layout->rank; i++) {
    if (layout->dimensions[i] < 1 || count > ((size_t)1 << 34) / (size_t)layout->dimensions[i]) return 0;
    count *= (size_t)layout->dimensions[i];
  }
  return count;
}

static handle_t options_of(const job_t *job) {
  handle_t options = NULL, xnnpack = NULL;
  MUST(EXIT_LIBRARY, "library", CreateOptions(&options));
  MUST(EXIT_LIBRARY, "library", SetOptionsHardwareAccelerators(options, CPU));
  char *toml = must_allocate(96);
  snprintf(toml, 96, "num_threads = %d\nkernel_mode = \"%s\"\n", job->threads,
           strcmp(job->kernels, "XNNPACK") ? "builtin" : "delegate");
  MUST(EXIT_LIBRARY, "library", CreateOpaqueOptions("xnnpack", toml, free, &xnnpack));
  MUST(EXIT_LIBRARY, "library", AddOpaqueOptions(options, xnnpack));
  return options;
}

static status_t make_buffer(litert_t *engine, const ranked_t *type, int is_input) {
  handle_t wanted = NULL;
  status_t status = is_input ? GetCompiledModelInputBufferRequirements(engine->compiled, 0, 0, &wanted)
                             : GetCompiledModelOutputBufferRequirements(engine->compiled, 0, 0, &wanted);
  handle_t *made = is_input ? &engine->input : &engine->output;
  size_t *bytes = is_input ? &engine->input_bytes : &engine->output_bytes;
  if (!status) status = CreateManagedTensorBufferFromRequirements(environment, type, wanted, made);
  return status ? status : GetTensorBufferPackedSize(*made, bytes);
}

/* Give an open model its batch, and buffers for it. NULL if it works at that, else what is wrong with it. */
static const char *set_batch(const job_t *job, model_t *model, ranked_t *entry, ranked_t *answer, size_t batch) {
  litert_t *engine = model->engine;
  int sizes[MOST_DIMENSIONS];
  for (int i = 0; i < model->input.rank; i++)
    sizes[i] = i == 0 ? (int)batch : i <= job->row_rank ? (int)job->row[i - 1] : (int)model->input.shape[i];
  layout_t now;
  if (GetCompiledModelInputTensorLayout(engine->compiled, 0, 0, &now)) return "its input has no sizes";
  int same = (int)now.rank == model->input.rank;
  for (int i = 0; same && i < model->input.rank; i++) same = now.dimensions[i] == sizes[i];
  /* At a batch of 1, a model that cannot be resized is taken at its own. */
  if (!same && CompiledModelResizeInputTensor(engine->compiled, 0, 0, sizes, (size_t)model->input.rank) && batch > 1)
    return "its batch is fixed";
  if (GetCompiledModelInputTensorLayout(engine->compiled, 0, 0, &entry->layout)) return "its input has no sizes";
  if (GetCompiledModelOutputTensorLayouts(engine->compiled, 0, 1, &answer->layout, true))
    return "its graph does not work at its input's sizes";
  size_t taken = elements(&entry->layout), given = elements(&answer->layout);
  if (!taken || !given || !entry->layout.rank) return "its tensors have no sizes that rows could have";
  model->batch = (size_t)entry->layout.dimensions[0];
  if (taken != model->batch * job->row_numbers) fail(EXIT_ROWS, "rows", "the model takes rows of another shape");
  set_shape(&model->output, &answer->layout);
  if (!vector_a_row(&model->output, model->batch)) return "it does not answer one vector a row";
  model->row_bytes = given / model->batch * model->output.number_bytes;
  if (make_buffer(engine, entry, 1) || make_buffer(engine, answer, 0)) return "there is no memory for its tensors";
  if (engine->input_bytes != taken * model->input.number_bytes ||
      engine->output_bytes != model->batch * model->row_bytes)
    return "its buffers have other sizes than its tensors";
  return NULL;
}

model_t *engine_open(const job_t *job, const char *path, size_t batch) {
  int xnnpack = !strcmp(job->kernels, "XNNPACK");
  /* Built-in float kernels do not answer a batch as single rows. */
  if (batch > 1 && !xnnpack) return NULL;
  model_t *model = must_allocate(sizeof *model);
  litert_t *engine = must_allocate(sizeof *engine);
  model->engine = engine;
  size_t signatures = 0, inputs = 0, outputs = 0;
  handle_t signature = NULL, input = NULL, output = NULL;
  MODEL_MUST(CreateModelFromFile(environment, path, &engine->model));
  MODEL_MUST(GetNumModelSignatures(engine->model, &signatures));
  if (!signatures) fail(EXIT_MODEL, "model", "it has no signature");
  MODEL_MUST(GetModelSignature(engine->model, 0, &signature));
  MODEL_MUST(GetNumSignatureInputs(signature, &inputs));
  MODEL_MUST(GetNumSignatureOutputs(signature, &outputs));
  if (inputs != 1 || outputs != 1)
    fail(EXIT_MODEL, "model", "%zu inputs and %zu outputs; one of each is needed", inputs, outputs);
  MODEL_MUST(GetSignatureInputTensorByIndex(signature, 0, &input));
  MODEL_MUST(GetSignatureOutputTensorByIndex(signature, 0, &output));
  ranked_t entry, answer;
  read_tensor(input, &model->input, &entry);
  read_tensor(output, &model->output, &answer);
  engine->options = options_of(job);
  MODEL_MUST(CreateCompiledModel(environment, engine->model, engine->options, &engine->compiled));
  const char *wrong = set_batch(job, model, &entry, &answer, batch);
  if (wrong && batch > 1) {
    engine_close(model);
    return NULL;
  }
  if (wrong) fail(EXIT_MODEL, "model", "%s", wrong);
  model->exact = 1;
  model->resizable = model->input.shape[0] == -1;
  bool full = false;
  model->accelerated = CompiledModelIsFullyAccelerated(engine->compiled, &full) ? -1 : full;
  if (xnnpack) model->delegates[model->delegate_count++] = "XNNPACK";
  return model;
}

int engine_run(model_t *model, const void *input, size_t rows, void *output) {
  (void)rows;
  litert_t *engine = model->engine;
  void *memory = NULL;
  if (LockTensorBuffer(engine->input, &memory, LOCK_WRITE)) return 0;
  memcpy(memory, input, engine->input_bytes);
  if (UnlockTensorBuffer(engine->input)) return 0;
  if (RunCompiledModel(engine->compiled, 0, 1, &engine->input, 1, &engine->output)) return 0;
  if (LockTensorBuffer(engine->output, &memory, LOCK_READ)) return 0;
  memcpy(output, memory, engine->output_bytes);
  return !UnlockTensorBuffer(engine->output);
}

void engine_close(model_t *model) {
  litert_t *engine = model->engine;
  if (engine->input) DestroyTensorBuffer(engine->input);
  if (engine->output) DestroyTensorBuffer(engine->output);
  if (engine->compiled) DestroyCompiledModel(engine->compiled);
  if (engine->options) DestroyOptions(engine->options);
  if (engine->model) DestroyModel(engine->model);
  free(model->input.name);
  free(model->output.name);
  free(engine);
  free(model);
}
