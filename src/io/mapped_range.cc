// See mapped_range.h.
//
// The handler may interrupt anything, so it takes no lock and allocates nothing: slots live for
// ever, in blocks that are linked by atomic pointers; a slot is free when its end is 0. A thread
// that faults in a range is using that range, so it is not being unregistered meanwhile.
#include "io/mapped_range.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

#include "base/mutex.h"

namespace aionbd {

struct MappedRange::Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> failed{false};
};

namespace {

using Slot = MappedRange::Slot;

struct SlotBlock {
  std::array<Slot, 256> slots;
  std::atomic<SlotBlock*> next{nullptr};
};

// Constant-initialised and never destroyed: the handler may run before main and after it.
SlotBlock first_block;
std::atomic<uint64_t> faults{0};
Mutex slots_mutex;  // held to take a slot
struct sigaction handler_before;
uintptr_t page_bytes = 4096;

static_assert(std::atomic<uintptr_t>::is_always_lock_free &&
              std::atomic<bool>::is_always_lock_free);

void mark(Slot& slot) {
  if (!slot.failed.exchange(true, std::memory_order_acq_rel)) {
    faults.fetch_add(1, std::memory_order_acq_rel);
  }
}

/// False when the address is in no range, or nothing can be done.
bool put_zeros_at(uintptr_t address) {
  for (SlotBlock* block = &first_block; block != nullptr;
       block = block->next.load(std::memory_order_acquire)) {
    for (Slot& slot : block->slots) {
      const uintptr_t end = slot.end.load(std::memory_order_acquire);
      if (end == 0 || address >= end || address < slot.begin.load(std::memory_order_relaxed)) {
        continue;
      }
      // Before anybody can read a zero.
      mark(slot);
      const uintptr_t page = address / page_bytes * page_bytes;
      // All that is behind, too: of a file that was cut every page there faults, and the kernel has
      // a limit of maps.
      return ::mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
    }
  }
  return false;
}

void pass_on(int number, siginfo_t* info, void* context) {
  if ((handler_before.sa_flags & SA_SIGINFO) != 0) {
    handler_before.sa_sigaction(number, info, context);
    return;
  }
  const bool sent = info->si_code <= 0;  // by a process, not by an access
  if (handler_before.sa_handler == SIG_IGN && sent) return;
  if (handler_before.sa_handler != SIG_DFL && handler_before.sa_handler != SIG_IGN) {
    handler_before.sa_handler(number);
    return;
  }
  // As if we had never been here: the access is repeated and ends the process.
  struct sigaction by_default {};
  by_default.sa_handler = SIG_DFL;
  ::sigaction(number, &by_default, nullptr);
  if (sent) ::raise(number);
}

void on_bus_error(int number, siginfo_t* info, void* context) {
  const int error = errno;
  const bool access = info->si_code > 0;
  const bool done = access && put_zeros_at(reinterpret_cast<uintptr_t>(info->si_addr));
  errno = error;
  if (!done) pass_on(number, info, context);
}

bool install_handler() {
  page_bytes = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  ::sigaction(SIGBUS, nullptr, &handler_before);
  struct sigaction ours {};
  ours.sa_sigaction = on_bus_error;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&ours.sa_mask);
  return ::sigaction(SIGBUS, &ours, nullptr) == 0;
}

/// A slot nobody uses, not yet known to the handler.
Slot& take_slot() REQUIRES(slots_mutex) {
  for (SlotBlock* block = &first_block;; block = block->next.load(std::memory_order_acquire)) {
    for (Slot& slot : block->slots) {
      if (slot.end.load(std::memory_order_relaxed) == 0) return slot;
    }
    if (block->next.load(std::memory_order_relaxed) == nullptr) {
      block->next.store(std::make_unique<SlotBlock>().release(), std::memory_order_release);
    }
  }
}

}  // namespace

uint64_t mapped_faults_count() {
  return faults.load(std::memory_order_acquire);
}

MappedRange::MappedRange(void* address, size_t size) {
  if (size == 0) return;
  static const bool installed = install_handler();
  static_cast<void>(installed);  // without it a fault ends the process, as it would have
  const auto begin = reinterpret_cast<uintptr_t>(address);
  MutexLock lock(slots_mutex);
  slot_ = &take_slot();
  slot_->failed.store(false, std::memory_order_relaxed);
  slot_->begin.store(begin, std::memory_order_relaxed);
  slot_->end.store((begin + size + page_bytes - 1) / page_bytes * page_bytes,
                   std::memory_order_release);
}

MappedRange::~MappedRange() {
  if (slot_ != nullptr) slot_->end.store(0, std::memory_order_release);
}

bool MappedRange::failed() const {
  return slot_ != nullptr && slot_->failed.load(std::memory_order_acquire);
}

void MappedRange::mark_failed() const {
  if (slot_ != nullptr) mark(*slot_);
}

}  // namespace aionbd
