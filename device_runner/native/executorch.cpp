// ExecuTorch's runtime by its C++ Module.
#include <dlfcn.h>
#include <link.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/platform.h>

#include "runner.h"

// Not among the headers of the wheel.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
  size_t get_thread_count() const;
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::Program;

extern "C" {
const char* const program_name = "edgeprivacy-executorch";
const char* const runtime_name = "executorch";
}

namespace {

constexpr const char* kMethod = "forward";
constexpr const char* kIdentifier = "ET12";
constexpr size_t kMostBytes = size_t{1} << 34;

struct Engine {
  std::unique_ptr<Module> module;
  std::vector<SizesType> sizes;
  ScalarType type;
};

// What the runtime said first since it was last asked to do something: its errors are numbers only.
char reason[256];

void note_reason(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t, const char* message,
                 size_t length) {
  std::fprintf(stderr, "%.*s\n", static_cast<int>(length), message);
  if (!reason[0] && (level == et_pal_log_level_t::kError || level == et_pal_log_level_t::kFatal))
    std::snprintf(reason, sizeof reason, ": %.*s", static_cast<int>(length), message);
}

// A model must open without an error, or the program ends; `what` says in words what went wrong.
void must(Error error, const char* what) {
  const bool version = error == Error::OperatorMissing || error == Error::DelegateInvalidCompatibility ||
                       error == Error::NotFound;  // a delegate that is not registered
  if (error != Error::Ok)
    fail(EXIT_MODEL, version ? "version" : "model", "%s: %s%s", what, executorch::runtime::to_string(error), reason);
}

int note_library(dl_phdr_info* info, size_t, void* found) {
  static_cast<std::vector<std::string>*>(found)->emplace_back(info->dlpi_name ? info->dlpi_name : "");
  return 0;
}

bool same_file(const char* one, const char* other) {
  struct stat a, b;
  return !stat(one, &a) && !stat(other, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

void set_type(tensor_t& tensor, ScalarType type) {
  static constexpr struct {
    ScalarType type;
    const char* name;
    size_t bytes;
  } kTypes[] = {{ScalarType::Float, "float32", 4}, {ScalarType::Double, "float64", 8},
                {ScalarType::Half, "float16", 2},  {ScalarType::Char, "int8", 1},
                {ScalarType::Byte, "uint8", 1},    {ScalarType::Short, "int16", 2},
                {ScalarType::Int, "int32", 4},     {ScalarType::Long, "int64", 8},
                {ScalarType::Bool, "bool", 1}};
  for (const auto& known : kTypes)
    if (known.type == type) {
      tensor.type = known.name;
      tensor.number_bytes = known.bytes;
      return;
    }
  fail(EXIT_MODEL, "model", "a tensor of type %d", static_cast<int>(type));
}

template <typename Sizes>
void set_shape(tensor_t& tensor, const Sizes& sizes) {
  if (sizes.size() > MOST_DIMENSIONS) fail(EXIT_MODEL, "model", "a tensor of %zu dimensions", sizes.size());
  tensor.rank = static_cast<int>(sizes.size());
  for (size_t i = 0; i < sizes.size(); i++) tensor.shape[i] = sizes[i];
}

// Reads the program's own words: it was written for another version.
void check_identifier(const char* path) {
  char head[8] = {0};
  FILE* file = std::fopen(path, "rb");
  size_t got = file ? std::fread(head, 1, sizeof head, file) : 0;
  if (file) std::fclose(file);
  if (got < sizeof head || std::memcmp(head + 4, "ET", 2))
    fail(EXIT_MODEL, "model", "it is no ExecuTorch program");
  if (std::memcmp(head + 4, kIdentifier, 4))
    fail(EXIT_MODEL, "version", "it is a program of format %.4s, this runtime reads %s", head + 4, kIdentifier);
}

// One call with `rows` rows: the output's bytes for a row, or 0 if the program fails on so many.
size_t execute(Engine& engine, const void* input, size_t rows, void* output, size_t room, tensor_t& about) {
  reason[0] = 0;
  auto sizes = engine.sizes;
  sizes[0] = static_cast<SizesType>(rows);
  auto tensor = from_blob(const_cast<void*>(input), sizes, engine.type);
  auto result = engine.module->execute(kMethod, tensor);
  if (!result.ok()) return 0;
  if (result->size() != 1 || !(*result)[0].isTensor()) fail(EXIT_MODEL, "model", "it answers no single tensor");
  const auto answer = (*result)[0].toTensor();
  set_type(about, answer.scalar_type());
  set_shape(about, answer.sizes());
  if (!vector_a_row(&about, rows) || !answer.nbytes()) {
    std::snprintf(reason, sizeof reason, ": it does not answer one vector a row");
    return 0;
  }
  if (output) {
    if (answer.nbytes() > room) fail(EXIT_RUNTIME, "runtime", "it answers more than before");
    std::memcpy(output, answer.const_data_ptr(), answer.nbytes());
  }
  return answer.nbytes() / rows;
}

}  // namespace

void engine_start(const job_t* job) {
  executorch::runtime::register_pal(executorch::runtime::PalImpl::create(note_reason, __FILE__));
  // The files whose hashes were checked must be those that the loader took.
  std::vector<std::string> loaded;
  dl_iterate_phdr(note_library, &loaded);
  for (size_t i = 0; i < job->library_count; i++) {
    bool found = false;
    for (const auto& name : loaded) found = found || same_file(name.c_str(), job->libraries[i]);
    if (!found) fail(EXIT_LIBRARY, "library", "%s is not the library that was loaded", job->libraries[i]);
  }
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool && pool->get_thread_count() != static_cast<size_t>(job->threads))
    pool->_unsafe_reset_threadpool(static_cast<uint32_t>(job->threads));
}

model_t* engine_open(const job_t* job, const char* path, size_t batch) {
  check_identifier(path);
  auto* engine = new Engine;
  engine->module = std::make_unique<Module>(path, Module::LoadMode::Mmap);
  auto* model = static_cast<model_t*>(must_allocate(sizeof(model_t)));
  model->engine = engine;
  reason[0] = 0;
  must(engine->module->load(Program::Verification::InternalConsistency), "it cannot be read");
  must(engine->module->load_method(kMethod), "it cannot be loaded");
  auto meta = engine->module->method_meta(kMethod);
  must(meta.error(), "it does not say what it takes");
  if (meta->num_inputs() != 1 || meta->num_outputs() != 1)
    fail(EXIT_MODEL, "model", "%zu inputs and %zu outputs; one of each is needed", meta->num_inputs(),
         meta->num_outputs());
  auto entry = meta->input_tensor_meta(0);
  must(entry.error(), "it takes no tensor");
  engine->sizes.assign(entry->sizes().begin(), entry->sizes().end());
  engine->type = entry->scalar_type();
  set_shape(model->input, engine->sizes);
  model->input.name = must_copy("input");
  model->output.name = must_copy("output");
  set_type(model->input, engine->type);
  size_t numbers = 1;
  for (size_t i = 1; i < engine->sizes.size(); i++) numbers *= static_cast<size_t>(engine->sizes[i]);
  const size_t capacity = engine->sizes.empty() ? 0 : static_cast<size_t>(engine->sizes[0]);
  if (engine->sizes.size() != static_cast<size_t>(job->row_rank) + 1 || numbers != job->row_numbers || capacity < 1)
    fail(EXIT_ROWS, "rows", "the program takes rows of another shape");
  model->accelerated = -1;
  for (size_t i = 0; i < meta->num_backends() && model->delegate_count < 4; i++) {
    auto name = meta->get_backend_name(i);
    if (name.ok()) model->delegates[model->delegate_count++] = must_copy(*name);
  }
  // Whether a program takes any batch, it does not say: it is tried.
  const size_t wanted = batch < capacity ? batch : capacity;
  const size_t row = numbers * model->input.number_bytes;
  std::vector<char> zeros(wanted * row + OVERREAD_BYTES);
  model->batch = wanted;
  model->resizable = 1;
  model->row_bytes = execute(*engine, zeros.data(), wanted, nullptr, 0, model->output);
  if (!model->row_bytes && batch == 1 && capacity > 1) {
    model->batch = capacity;
    model->exact = 1;
    model->resizable = 0;
    if (capacity > kMostBytes / row) fail(EXIT_MODEL, "model", "it takes %zu rows at once", capacity);
    zeros.resize(capacity * row + OVERREAD_BYTES);
    model->row_bytes = execute(*engine, zeros.data(), capacity, nullptr, 0, model->output);
  }
  if (!model->row_bytes && batch > 1) {
    engine_close(model);
    return nullptr;
  }
  if (!model->row_bytes) fail(EXIT_RUNTIME, "runtime", "the program fails on rows of zeros%s", reason);
  return model;
}

int engine_run(model_t* model, const void* input, size_t rows, void* output) {
  auto* engine = static_cast<Engine*>(model->engine);
  tensor_t answer;
  const size_t row = execute(*engine, input, rows, output, model->batch * model->row_bytes, answer);
  return row == model->row_bytes;
}

void engine_close(model_t* model) {
  for (int i = 0; i < model->delegate_count; i++) std::free(const_cast<char*>(model->delegates[i]));
  delete static_cast<Engine*>(model->engine);
  std::free(model->input.name);
  std::free(model->output.name);
  std::free(model);
}
