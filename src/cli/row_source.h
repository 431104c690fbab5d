// Rows of an input file, read forward in batches: the one interface behind `aionbd import`.
//
// A source reads and checks; it does not spell JSON (row_encoder.h does, on several threads at
// once). Every file is hostile input: lengths in headers are compared with the length of the file
// by arithmetic that cannot wrap before anything is allocated, and a batch is bounded whatever the
// file says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "aionbd/status.h"
#include "aionbd/types.h"
#include "cli/byte_stream.h"
#include "io/file_system.h"

namespace aionbd {

/// Bytes of one NDJSON line: a full vector and a full payload fit with room for escapes.
inline constexpr size_t kLineBytesMax = size_t{16} << 20;
/// Bytes readable after the last line of `RowBatch::text`, as the JSON parser wants.
inline constexpr size_t kTextPaddingBytes = 64;

/// One NDJSON line inside `RowBatch::text`, without its line end.
struct TextRow {
  uint64_t row = 0;  // position in the file, from 0, blank lines counted
  size_t begin = 0;
  size_t size = 0;
  bool too_long = false;  // over kLineBytesMax: `size` is 0, the row can only be refused
};

/// Some consecutive rows: numbers (`dimension` > 0) or lines (`dimension` == 0).
struct RowBatch {
  uint64_t first_row = 0;   // rows of the file before this batch
  uint64_t rows_taken = 0;  // rows of the file it covers, blank lines included
  uint32_t dimension = 0;
  std::vector<float> values;    // float[rows × dimension]
  std::vector<uint8_t> labels;  // one per row, or none
  std::string text;             // the lines, kTextPaddingBytes longer than they are
  std::vector<TextRow> text_rows;

  /// Rows that carry something.
  size_t size() const { return dimension > 0 ? values.size() / dimension : text_rows.size(); }
  /// Position in the file of the i-th of them.
  uint64_t row_of(size_t i) const { return dimension > 0 ? first_row + i : text_rows[i].row; }
};

/// Thread safety: single owner.
class RowSource {
 public:
  virtual ~RowSource() = default;

  /// Replaces `out` by the next rows: at most `rows_max` (>= 1), and no more once about `bytes_max`
  /// bytes are in it. `out->rows_taken` is 0 at the end of the input, and only then.
  /// Errors: corruption (the file is damaged), io_error.
  virtual Status next(size_t rows_max, size_t bytes_max, RowBatch* out) = 0;
  /// Passes over `rows` rows (lines). Errors: as `next`; corruption when there are fewer.
  virtual Status skip(uint64_t rows) = 0;

  /// Numbers per row; 0 when only the rows know (NDJSON).
  virtual uint32_t dimension() const = 0;
  /// Rows in the file, where its header says so.
  virtual std::optional<uint64_t> rows_count() const = 0;
  /// The metric the file says it is meant for (ANN-benchmark files do).
  virtual std::optional<Metric> metric() const { return std::nullopt; }

  /// Bytes read and bytes in total, of the file on disk: for progress.
  virtual uint64_t consumed() const = 0;
  virtual uint64_t file_bytes() const = 0;
};

enum class InputFormat : uint8_t { kNdjson, kNpy, kFvecs, kIdx, kHdf5 };
inline constexpr std::string_view kInputFormatNames[] = {"ndjson", "npy", "fvecs", "idx", "hdf5"};

/// The format of a file by its name (a trailing .gz or .zst is looked through) or, failing that, by
/// its first bytes. Errors: invalid_argument when neither tells; not_found, io_error.
Result<InputFormat> detect_format(FileSystem& files, const std::string& path);

/// Opens `path` and checks its header. `dataset` names the data set of an HDF5 file.
/// Errors: corruption, invalid_argument (a kind of content we do not read), not_found, io_error.
Result<std::unique_ptr<RowSource>> open_row_source(FileSystem& files, const std::string& path,
                                                   InputFormat format, const std::string& dataset);

/// The readers, one per format. The stream is at its start.
Result<std::unique_ptr<RowSource>> open_ndjson(std::unique_ptr<ByteStream> stream);
Result<std::unique_ptr<RowSource>> open_npy(std::unique_ptr<ByteStream> stream);
Result<std::unique_ptr<RowSource>> open_fvecs(std::unique_ptr<ByteStream> stream);
Result<std::unique_ptr<RowSource>> open_idx(std::unique_ptr<ByteStream> stream);
Result<std::unique_ptr<RowSource>> open_hdf5(const std::string& path, const std::string& dataset);

/// The labels of an IDX file of one dimension (MNIST's *-labels-*), read along with the rows.
/// Thread safety: single owner.
class LabelSource {
 public:
  static Result<std::unique_ptr<LabelSource>> open(std::unique_ptr<ByteStream> stream);

  uint64_t count() const { return count_; }
  /// The next `rows` labels. Errors: corruption when there are fewer.
  Status next(size_t rows, std::vector<uint8_t>* out);
  Status skip(uint64_t rows);

 private:
  LabelSource(std::unique_ptr<ByteStream> stream, uint64_t count)
      : stream_(std::move(stream)), count_(count) {}

  std::unique_ptr<ByteStream> stream_;
  const uint64_t count_;
};

}  // namespace aionbd
