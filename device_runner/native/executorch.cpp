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

extern "C" {
const char* const program_name = "edgeprivacy-executorch";
const char* const runtime_name = "executorch";
}

namespace {

constexpr const char* kMethod = "forward";
constexpr const char* kIdentifier = "ET12";

struct Engine {
  std::unique_ptr<Module> module;
  std::vector<SizesType> sizes;
  ScalarType type;
};

int note_library(dl_phdr_info* info, size_t, void* found) {
  static_cast<std::vector<std::string>*>(found)->emplace_back(info->dlpi_name ? info->dlpi_name : "");
  return 0;
}

bool same_file(const char* one, const char* other) {
  struct stat a, b;
  return !stat(one, &a) && !stat(other, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

const char* type_name(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Half: return "float16";
    case ScalarType::Char: return "int8";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Bool: return "bool";
    default: return "unknown";
  }
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
size_t execute(Engine& engine, const void* input, size_t rows, void* output, size_t room, tensor_t* about) {
  auto sizes = engine.sizes;
  sizes[0] = static_cast<SizesType>(rows);
  auto tensor = from_blob(const_cast<void*>(input), sizes, engine.type);
  auto result = engine.module->execute(kMethod, tensor);
  if (!result.ok()) return 0;
  if (result->size() != 1 || !(*result)[0].isTensor()) fail(EXIT_MODEL, "model", "it answers no single tensor");
  const auto answer = (*result)[0].toTensor();
  if (answer.dim() < 1 || static_cast<size_t>(answer.size(0)) != rows || !answer.nbytes() || answer.nbytes() % rows)
    fail(EXIT_MODEL, "model", "it does not answer one vector a row");
  if (about) {
    about->type = type_name(answer.scalar_type());
    about->number_bytes = answer.element_size();
    set_shape(*about, answer.sizes());
  }
  if (output) {
    if (answer.nbytes() > room) fail(EXIT_RUNTIME, "runtime", "it answers more than before");
    std::memcpy(output, answer.const_data_ptr(), answer.nbytes());
  }
  return answer.nbytes() / rows;
}

}  // namespace

void engine_start(const job_t* job) {
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
  const Error error = engine->module->load_method(kMethod);
  if (error == Error::OperatorMissing || error == Error::DelegateInvalidCompatibility)
    fail(EXIT_MODEL, "version", "it needs what this runtime does not have: error %d", static_cast<int>(error));
  if (error != Error::Ok) fail(EXIT_MODEL, "model", "it cannot be loaded: error %d", static_cast<int>(error));
  auto meta = engine->module->method_meta(kMethod);
  if (!meta.ok()) fail(EXIT_MODEL, "model", "it does not say what it takes: error %d", static_cast<int>(meta.error()));
  if (meta->num_inputs() != 1 || meta->num_outputs() != 1)
    fail(EXIT_MODEL, "model", "%zu inputs and %zu outputs; one of each is needed", meta->num_inputs(),
         meta->num_outputs());
  auto entry = meta->input_tensor_meta(0);
  if (!entry.ok()) fail(EXIT_MODEL, "model", "it takes no tensor");
  engine->sizes.assign(entry->sizes().begin(), entry->sizes().end());
  engine->type = entry->scalar_type();
  set_shape(model->input, engine->sizes);
  model->input.name = must_copy("input");
  model->output.name = must_copy("output");
  model->input.type = type_name(engine->type);
  size_t numbers = 1;
  for (size_t i = 1; i < engine->sizes.size(); i++) numbers *= static_cast<size_t>(engine->sizes[i]);
  const size_t capacity = engine->sizes.empty() ? 0 : static_cast<size_t>(engine->sizes[0]);
  if (engine->sizes.size() != static_cast<size_t>(job->row_rank) + 1 || numbers != job->row_numbers || capacity < 1)
    fail(EXIT_ROWS, "rows", "the program takes rows of another shape");
  model->input.number_bytes = entry->nbytes() / numbers / capacity;
  model->accelerated = -1;
  for (size_t i = 0; i < meta->num_backends() && model->delegate_count < 4; i++) {
    auto name = meta->get_backend_name(i);
    if (name.ok()) model->delegates[model->delegate_count++] = must_copy(*name);
  }
  // Whether a program takes any batch, it does not say: it is tried.
  const size_t wanted = batch < capacity ? batch : capacity;
  std::vector<char> zeros(capacity * numbers * model->input.number_bytes + OVERREAD_BYTES);
  model->batch = wanted;
  model->resizable = 1;
  model->row_bytes = execute(*engine, zeros.data(), wanted, nullptr, 0, &model->output);
  if (!model->row_bytes && batch == 1 && capacity > 1) {
    model->batch = capacity;
    model->exact = 1;
    model->resizable = 0;
    model->row_bytes = execute(*engine, zeros.data(), capacity, nullptr, 0, &model->output);
  }
  if (!model->row_bytes && batch > 1) {
    engine_close(model);
    return nullptr;
  }
  if (!model->row_bytes) fail(EXIT_RUNTIME, "runtime", "the program fails on rows of zeros");
  return model;
}

int engine_run(model_t* model, const void* input, size_t rows, void* output) {
  auto* engine = static_cast<Engine*>(model->engine);
  const size_t row = execute(*engine, input, rows, output, model->batch * model->row_bytes, nullptr);
  return row == model->row_bytes;
}

void engine_close(model_t* model) {
  for (int i = 0; i < model->delegate_count; i++) std::free(const_cast<char*>(model->delegates[i]));
  delete static_cast<Engine*>(model->engine);
  std::free(model->input.name);
  std::free(model->output.name);
  std::free(model);
}
