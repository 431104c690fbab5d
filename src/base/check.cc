// Where failed checks end.
#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace aionbd {

void check_failed(const char* file, int line, std::string_view text) {
  std::fprintf(stderr, "%s:%d: check failed: %.*s\n", file, line, static_cast<int>(text.size()),
               text.data());
  std::fflush(stderr);
  std::abort();
}

}  // namespace aionbd
