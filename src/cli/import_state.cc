// The state file is one JSON object, written to a temporary name, synced and renamed.
#include "cli/import_state.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <chrono>
#include <filesystem>

#include "cli/row_encoder.h"

namespace aionbd {
namespace {

/// A path and a few numbers; anything larger is not ours.
constexpr uint64_t kStateBytesMax = uint64_t{64} << 10;

}  // namespace

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<InputIdentity> identify_input(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  InputIdentity identity;
  identity.path = fs::absolute(path, error).lexically_normal().string();
  const bool regular = !error && fs::is_regular_file(path, error);
  if (error) return not_found("cannot open " + path + ": " + error.message());
  if (!regular) return invalid_argument(path + " is not a regular file");
  identity.bytes = fs::file_size(path, error);
  if (error) return io_error("cannot read the size of " + path + ": " + error.message());
  const auto modified = fs::last_write_time(path, error);
  if (error) return io_error("cannot read the time of " + path + ": " + error.message());
  identity.modified_ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(modified.time_since_epoch()).count();
  return identity;
}

Status save_import_state(FileSystem& files, const std::string& path, const ImportState& state) {
  std::string text = "{\"aionbd_import\":1,\"input\":";
  append_json_string(state.input.path, &text);
  text += fmt::format(",\"bytes\":{},\"modified_ns\":{},\"target\":", state.input.bytes,
                      state.input.modified_ns);
  append_json_string(state.target, &text);
  text +=
      fmt::format(",\"rows_done\":{},\"rows_refused\":{}}}\n", state.rows_done, state.rows_refused);
  const std::string temporary = path + ".tmp";
  {
    ASSIGN_OR_RETURN(const auto file, files.create(temporary));
    RETURN_IF_ERROR(file->append(as_bytes_of(text)));
    RETURN_IF_ERROR(file->sync());
  }
  return files.rename(temporary, path);
}

Result<std::optional<ImportState>> load_import_state(FileSystem& files, const std::string& path) {
  const auto text = files.read(path, kStateBytesMax);
  if (!text.has_value()) {
    if (text.error().code() == Code::kNotFound) return std::optional<ImportState>();
    return text.error();
  }
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  ImportState state;
  uint64_t version = 0;
  std::string_view input, target;
  const bool good = parser.parse(*text).get(root) == simdjson::SUCCESS &&
                    root["aionbd_import"].get(version) == simdjson::SUCCESS && version == 1 &&
                    root["input"].get(input) == simdjson::SUCCESS &&
                    root["bytes"].get(state.input.bytes) == simdjson::SUCCESS &&
                    root["modified_ns"].get(state.input.modified_ns) == simdjson::SUCCESS &&
                    root["target"].get(target) == simdjson::SUCCESS &&
                    root["rows_done"].get(state.rows_done) == simdjson::SUCCESS &&
                    root["rows_refused"].get(state.rows_refused) == simdjson::SUCCESS;
  if (!good) return corruption(path + " is not the state of an import");
  state.input.path = input;
  state.target = target;
  return std::optional<ImportState>(std::move(state));
}

}  // namespace aionbd
