// Android's init hands properties to adbd through shared memory; here they come from a file, before main() runs.
#include <cstdlib>
#include <fstream>
#include <string>

#include <android-base/properties.h>

__attribute__((constructor(65535))) static void load_properties() {
  const char* path = getenv("TESTDEVICE_PROPERTIES");
  if (path == nullptr) return;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto equals = line.find('=');
    if (equals != std::string::npos) {
      android::base::SetProperty(line.substr(0, equals), line.substr(equals + 1));
    }
  }
}
