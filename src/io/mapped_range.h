// What becomes of a fault in a mapped file: a page that cannot be read (somebody cut the file, the
// medium fails) is a SIGBUS, which by default ends the process.
//
// Every map made here is registered. A handler, installed with the first of them, looks the address
// up: a fault in a registered range puts zeros in the place of the page and all behind it, marks
// the range, counts, and lets the access go on. So nobody who reads mapped bytes has to expect an
// error at each access; whoever has computed something from them asks afterwards whether a fault
// was counted at all, and if so, which of its files are marked. Zeros are never a valid answer, and
// the readers of mapped bytes stay within bounds whatever these become.
//
// Any other SIGBUS goes to the handler that was there before. A program that installs one of its
// own later, and does not chain, takes this protection away.
//
// Cost: nothing at an access. A registered range takes a slot of 24 bytes, reused after it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace aionbd {

/// Ranges marked since the process began. Cost: an atomic load.
uint64_t mapped_faults_count();

/// A map of a file, known to the handler. Thread safety: safe; `failed` only ever becomes true.
class MappedRange {
 public:
  /// REQUIRES: mapped by the caller, and unmapped after this object is gone.
  MappedRange(void* address, size_t size);
  ~MappedRange();
  MappedRange(const MappedRange&) = delete;
  MappedRange& operator=(const MappedRange&) = delete;

  /// Some bytes of the range are not those of the file.
  bool failed() const;
  /// Marks it, and counts, if it was not marked: for reads of the file that fail in another way.
  void mark_failed() const;

  struct Slot;

 private:
  Slot* slot_ = nullptr;  // null: an empty range
};

}  // namespace aionbd
