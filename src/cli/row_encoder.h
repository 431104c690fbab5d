// One row of an input file as a JSON point, ready for the body of a batch request.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "aionbd/status.h"
#include "aionbd/types.h"
#include "cli/row_source.h"

namespace aionbd {

/// Appends the shortest JSON number that reads back to the same f32; -0.0 keeps its sign.
/// REQUIRES: `value` is finite. Cost: about 5 ns for whole numbers, 30 ns for others.
void append_f32(float value, std::string* out);
/// Appends `text` as a JSON string, quotes included. REQUIRES: `text` is UTF-8.
void append_json_string(std::string_view text, std::string* out);

struct RowEncoding {
  std::string id_field = "id";  // of NDJSON rows
  uint64_t start_id = 0;        // id of row 0 where the file has no ids
  IdType id_type = IdType::kU64;
};

/// What the first row of a file tells about the collection it wants.
struct RowShape {
  uint32_t dimension = 0;
  IdType id_type = IdType::kU64;
};

/// Thread safety: single owner; one per worker thread, it keeps the parser's memory.
class RowEncoder {
 public:
  explicit RowEncoder(RowEncoding encoding);
  ~RowEncoder();
  RowEncoder(const RowEncoder&) = delete;
  RowEncoder& operator=(const RowEncoder&) = delete;

  /// Appends {"id":..,"values":[..],"payload":{..}} for the i-th row of `batch`. On an error
  /// nothing is appended. Errors: invalid_argument, saying what is wrong with this row (a line that
  /// is no JSON object, an unknown or missing key, a number that is not finite).
  Status append_point(const RowBatch& batch, size_t i, std::string* out);

  /// Dimension and kind of id of the i-th row. Errors: as append_point.
  Result<RowShape> shape_of(const RowBatch& batch, size_t i);

 private:
  class Json;

  Status append_numbers(const RowBatch& batch, size_t i, std::string* out);
  Status append_line(const RowBatch& batch, const TextRow& row, std::string* out);

  const RowEncoding encoding_;
  std::unique_ptr<Json> json_;
};

}  // namespace aionbd
