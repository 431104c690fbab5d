// Bytes of an input file, read forward once in bounded memory; gzip and zstd are unpacked on the
// way, recognised by their magic numbers and not by the file's name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "aionbd/status.h"
#include "io/file_system.h"

namespace aionbd {

/// Thread safety: single owner.
class ByteStream {
 public:
  virtual ~ByteStream() = default;

  /// Fills `out` from its start. Returns the bytes written; fewer than `out.size()` only at the
  /// end. Errors: io_error, corruption (damaged or cut compressed data).
  virtual Result<size_t> read(std::span<std::byte> out) = 0;

  /// Bytes taken from the file so far, compressed ones where it is compressed: for progress.
  virtual uint64_t consumed() const = 0;
  /// Length of the file on disk when it was opened.
  virtual uint64_t file_bytes() const = 0;
  /// Length of what `read` yields in total; empty for compressed input, where nobody knows.
  virtual std::optional<uint64_t> content_bytes() const = 0;

  /// Reads exactly `out.size()` bytes. Errors: those of `read`; corruption at an early end.
  Status read_exactly(std::span<std::byte> out);
  /// Passes over `bytes` bytes. Errors: as `read_exactly`. Cost: reads them.
  Status skip(uint64_t bytes);
};

/// Opens `path`. `files` must outlive the stream. Errors: not_found, io_error.
Result<std::unique_ptr<ByteStream>> open_byte_stream(FileSystem& files, const std::string& path);

}  // namespace aionbd
