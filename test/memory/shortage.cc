// Every form of operator new and delete, on malloc. A file of its own: where the compiler sees both
// ends of an allocation, it takes the pair new and free for a mistake.
#include "test/memory/shortage.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

// Counted on the thread that is armed only: others go on as they do when memory is short elsewhere.
thread_local bool armed = false;
thread_local uint64_t seen = 0;
thread_local uint64_t failing = 0;
thread_local bool sticky = false;

void* allocate(std::size_t bytes, std::size_t alignment) {
  if (armed) {
    ++seen;
    if (seen == failing || (sticky && seen > failing)) return nullptr;
  }
  if (bytes == 0) bytes = 1;
  if (alignment <= alignof(std::max_align_t)) return std::malloc(bytes);
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  void* const at = allocate(bytes, alignment);
  if (at == nullptr) throw std::bad_alloc();
  return at;
}

}  // namespace

void* operator new(std::size_t bytes) {
  return allocate_or_throw(bytes, 1);
}
void* operator new[](std::size_t bytes) {
  return allocate_or_throw(bytes, 1);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, 1);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, 1);
}
void operator delete(void* at) noexcept {
  std::free(at);
}
void operator delete[](void* at) noexcept {
  std::free(at);
}
void operator delete(void* at, std::size_t) noexcept {
  std::free(at);
}
void operator delete[](void* at, std::size_t) noexcept {
  std::free(at);
}
void operator delete(void* at, const std::nothrow_t&) noexcept {
  std::free(at);
}
void operator delete[](void* at, const std::nothrow_t&) noexcept {
  std::free(at);
}
void operator delete(void* at, std::align_val_t) noexcept {
  std::free(at);
}
void operator delete[](void* at, std::align_val_t) noexcept {
  std::free(at);
}
void operator delete(void* at, std::size_t, std::align_val_t) noexcept {
  std::free(at);
}
void operator delete[](void* at, std::size_t, std::align_val_t) noexcept {
  std::free(at);
}

namespace aionbd {

Shortage::Shortage(uint64_t n, bool from_then_on) {
  seen = 0;
  failing = n;
  sticky = from_then_on;
  armed = true;
}

Shortage::~Shortage() {
  armed = false;
}

bool Shortage::met() {
  return seen >= failing;
}

}  // namespace aionbd
