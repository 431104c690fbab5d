// Which reader a file gets.
#include "cli/row_source.h"

#include <algorithm>
#include <array>
#include <utility>

namespace aionbd {
namespace {

constexpr std::string_view kNpyMagic = "\x93NUMPY";
constexpr std::string_view kHdf5Magic = "\x89HDF\r\n\x1a\n";

std::string_view without_suffix(std::string_view text, std::string_view suffix) {
  if (text.ends_with(suffix)) text.remove_suffix(suffix.size());
  return text;
}

std::optional<InputFormat> format_by_name(std::string_view path) {
  const size_t slash = path.rfind('/');
  std::string_view name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  name = without_suffix(without_suffix(name, ".gz"), ".zst");
  if (name.ends_with(".ndjson") || name.ends_with(".jsonl")) return InputFormat::kNdjson;
  if (name.ends_with(".npy")) return InputFormat::kNpy;
  if (name.ends_with(".fvecs")) return InputFormat::kFvecs;
  if (name.ends_with(".hdf5") || name.ends_with(".h5")) return InputFormat::kHdf5;
  // MNIST's files are named train-images-idx3-ubyte.
  if (name.ends_with(".idx") || name.find("-idx") != std::string_view::npos ||
      name.find(".idx") != std::string_view::npos) {
    return InputFormat::kIdx;
  }
  return std::nullopt;
}

}  // namespace

Result<InputFormat> detect_format(FileSystem& files, const std::string& path) {
  if (const auto format = format_by_name(path)) return *format;
  ASSIGN_OR_RETURN(const auto stream, open_byte_stream(files, path));
  std::array<char, 8> start{};
  ASSIGN_OR_RETURN(const size_t got, stream->read(std::as_writable_bytes(std::span(start))));
  const std::string_view head(start.data(), got);
  if (head.starts_with(kNpyMagic)) return InputFormat::kNpy;
  if (head.starts_with(kHdf5Magic)) return InputFormat::kHdf5;
  const size_t text = head.find_first_not_of(" \t\r\n");
  if (text != std::string_view::npos && head[text] == '{') return InputFormat::kNdjson;
  if (got >= 4 && head[0] == 0 && head[1] == 0 && head[2] >= 0x08 && head[2] <= 0x0E) {
    return InputFormat::kIdx;
  }
  return invalid_argument("cannot tell the format of " + path + ": name it with --format");
}

Result<std::unique_ptr<RowSource>> open_row_source(FileSystem& files, const std::string& path,
                                                   InputFormat format, const std::string& dataset) {
  if (format == InputFormat::kHdf5) return open_hdf5(path, dataset);
  ASSIGN_OR_RETURN(auto stream, open_byte_stream(files, path));
  switch (format) {
    case InputFormat::kNdjson: return open_ndjson(std::move(stream));
    case InputFormat::kNpy: return open_npy(std::move(stream));
    case InputFormat::kFvecs: return open_fvecs(std::move(stream));
    case InputFormat::kIdx: return open_idx(std::move(stream));
    case InputFormat::kHdf5: break;
  }
  return internal_error("unknown input format");
}

}  // namespace aionbd
