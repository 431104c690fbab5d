#include "io/process_memory.h"

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <charconv>
#include <cstring>

namespace aionbd {
namespace {

class LinuxProcessMemory final : public ProcessMemory {
 public:
  uint64_t resident_bytes() const override {
    const int fd = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    char text[128];
    const ssize_t size = ::read(fd, text, sizeof(text));
    ::close(fd);
    if (size <= 0) return 0;
    // "pages of address space, resident pages, ..."
    const char* const end = text + size;
    const auto* space = static_cast<const char*>(std::memchr(text, ' ', static_cast<size_t>(size)));
    if (space == nullptr) return 0;
    uint64_t pages = 0;
    if (std::from_chars(space + 1, end, pages).ec != std::errc()) return 0;
    return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  }
  void give_back_freed() override { (void)::malloc_trim(0); }
};

}  // namespace

ProcessMemory& process_memory() {
  static LinuxProcessMemory memory;
  return memory;
}

}  // namespace aionbd
