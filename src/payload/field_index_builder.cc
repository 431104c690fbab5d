// From payloads to the serialised index of their segment.
//
// Each payload is walked once, object by object. The walk follows a tree of the keys met so far, so
// that a path is put together and looked up only when it is new; a key that is where the tree
// expects it costs one comparison.
//
// Which value a path leads to is the filter's rule. When keys hold dots, several chains of keys in
// one payload can spell the same path; they all follow the same objects, and the rule takes the one
// that leaves them first. The walk sees all keys of an object before it enters the objects below,
// so that one comes first, and the ones after it are passed over.
#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/rng.h"
#include "payload/field_index.h"
#include "payload/field_index_layout.h"
#include "payload/field_values.h"
#include "payload/stored_field.h"

namespace aionbd {

namespace {

/// A place in the tree of keys: a chain of keys that has occurred. Children ascend by key.
struct KeyNode {
  std::string key;
  size_t path = 0;
  std::vector<std::unique_ptr<KeyNode>> children;
};

/// A path and what is known of it.
struct Path {
  Path(std::string_view path_text, uint64_t hash_seed) : text(path_text), values(hash_seed) {}

  std::string text;
  uint64_t rows_count = 0;
  uint64_t rows_end = 0;   // behind the last row that has the field
  bool wanted = false;     // named in the options
  bool gathering = false;  // `values` is complete so far
  FieldValues values;
};

}  // namespace

struct FieldIndexBuilder::State {
  explicit State(FieldIndexOptions builder_options);

  void walk(KeyNode* node, Bytes entries, size_t depth);
  KeyNode* child_of(KeyNode* node, std::string_view key, size_t* at);
  std::optional<size_t> path_of(std::string_view text, bool limited);
  void add_path(std::string_view text);
  void add_value(Path* path, const StoredValue& value);
  void give_up(Path* path);
  void keep_within_memory();
  std::vector<Path*> paths_to_write();

  FieldIndexOptions options;
  uint64_t hash_seed = entropy_seed();
  std::deque<Path> paths;
  std::map<std::string, size_t, std::less<>> path_numbers;
  size_t path_bytes = 0;
  bool paths_complete = true;
  KeyNode root;
  uint32_t rows = 0;
  size_t bytes_since_check = 0;
};

FieldIndexBuilder::State::State(FieldIndexOptions builder_options)
    : options(std::move(builder_options)) {
  // A column's text offsets have 32 bits, and the bound is noticed up to one payload late.
  options.string_bytes_max =
      std::min<size_t>(options.string_bytes_max, UINT32_MAX - kPayloadBytesMax);
  if (!options.fields) return;
  for (size_t i = 0; i < options.fields->size() && i < kIndexedFieldsMax; ++i) {
    const std::string& field = (*options.fields)[i];
    Path& path = paths[*path_of(field, false)];
    path.wanted = true;
    path.gathering = true;
  }
}

void FieldIndexBuilder::State::add_path(std::string_view text) {
  path_numbers.emplace(text, paths.size());
  path_bytes += text.size();
  paths.emplace_back(text, hash_seed);
  paths.back().gathering = !options.fields;
}

/// The number of a path, which is remembered if it is new and, when `limited`, there is room.
///
/// A path is remembered after the paths of the objects that may lead to it. So when "a.b" was a key
/// and there is no more room, the object "a" is still entered and its "b" found.
std::optional<size_t> FieldIndexBuilder::State::path_of(std::string_view text, bool limited) {
  if (const auto known = path_numbers.find(text); known != path_numbers.end()) {
    return known->second;
  }
  size_t dot = text.find('.');
  for (size_t level = 1;; ++level) {
    const std::string_view part = text.substr(0, dot);
    if (path_numbers.find(part) == path_numbers.end()) {
      if (limited &&
          (paths.size() >= kIndexPathsMax || path_bytes + part.size() > kIndexPathBytesMax)) {
        paths_complete = false;
        return std::nullopt;
      }
      add_path(part);
    }
    if (dot == std::string_view::npos) return paths.size() - 1;
    // No chain of objects is longer than payloads are deep.
    dot = level < kNestingMax ? text.find('.', dot + 1) : std::string_view::npos;
  }
}

/// The child for `key`, made when it is new; null when no more paths are remembered. `at`: where to
/// look first; afterwards, behind the child.
KeyNode* FieldIndexBuilder::State::child_of(KeyNode* node, std::string_view key, size_t* at) {
  auto& children = node->children;
  if (*at >= children.size() || children[*at]->key != key) {
    const auto place = std::lower_bound(
        children.begin(), children.end(), key,
        [](const std::unique_ptr<KeyNode>& child, std::string_view k) { return child->key < k; });
    *at = static_cast<size_t>(place - children.begin());
    if (place == children.end() || (*place)->key != key) {
      std::string text;
      if (node != &root) text = paths[node->path].text + '.';
      const auto number = path_of(text.append(key), true);
      if (!number) return nullptr;
      auto child = std::make_unique<KeyNode>();
      child->key = key;
      child->path = *number;
      children.insert(place, std::move(child));
    }
  }
  return children[(*at)++].get();
}

/// Recurses once per nesting level of the payload, at most kNestingMax deep.
void FieldIndexBuilder::State::walk(KeyNode* node, Bytes entries, size_t depth) {
  bool objects = false;
  const std::byte* at = entries.data();
  const std::byte* const end = at + entries.size();
  size_t child_at = 0;
  while (at < end) {
    const std::string_view key = read_key(at);
    const StoredValue value = read_value(at);
    KeyNode* const child = child_of(node, key, &child_at);
    if (child == nullptr) continue;
    add_value(&paths[child->path], value);
    objects = objects || value.tag == ValueTag::kObject;
  }
  if (!objects || depth == kNestingMax) return;
  at = entries.data();
  child_at = 0;
  while (at < end) {
    const std::string_view key = read_key(at);
    const StoredValue value = read_value(at);
    // No path leads into an object below a key with a dot.
    if (value.tag != ValueTag::kObject || key.find('.') != std::string_view::npos) continue;
    KeyNode* const child = child_of(node, key, &child_at);
    if (child != nullptr) walk(child, value.body, depth + 1);
  }
}

void FieldIndexBuilder::State::add_value(Path* path, const StoredValue& value) {
  if (path->rows_end > rows) return;
  path->rows_end = uint64_t{rows} + 1;
  ++path->rows_count;
  if (!path->gathering) return;
  path->values.add(value, rows);
  // A column counts in 32 bits, and one payload adds at most kPayloadBytesMax entries.
  constexpr size_t kEntriesMax = UINT32_MAX - kPayloadBytesMax;
  if (path->values.text_bytes() > options.string_bytes_max ||
      path->values.entries_count() > kEntriesMax) {
    give_up(path);
  }
}

void FieldIndexBuilder::State::give_up(Path* path) {
  path->gathering = false;
  path->values = FieldValues(hash_seed);
}

void FieldIndexBuilder::State::keep_within_memory() {
  size_t total = 0;
  for (const Path& path : paths) total += path.values.memory_bytes();
  while (total > options.memory_bytes_max) {
    Path* largest = nullptr;
    size_t largest_bytes = 0;
    for (Path& path : paths) {
      if (!path.gathering || path.values.memory_bytes() <= largest_bytes) continue;
      largest = &path;
      largest_bytes = path.values.memory_bytes();
    }
    if (largest == nullptr) return;
    give_up(largest);
    total -= largest_bytes - largest->values.memory_bytes();
  }
}

/// Ascending by path; `gathering` is left for those to be indexed.
std::vector<Path*> FieldIndexBuilder::State::paths_to_write() {
  std::vector<Path*> out;
  std::vector<Path*> candidates;
  for (const auto& [text, number] : path_numbers) {
    Path* const path = &paths[number];
    if (path->rows_count == 0 && !path->wanted) continue;
    out.push_back(path);
    if (path->gathering) candidates.push_back(path);
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const Path* a, const Path* b) {
    if (a->values.has_elements() != b->values.has_elements()) return a->values.has_elements();
    return a->rows_count > b->rows_count;
  });
  for (size_t i = kIndexedFieldsMax; i < candidates.size(); ++i) give_up(candidates[i]);
  return out;
}

FieldIndexBuilder::FieldIndexBuilder(FieldIndexOptions options)
    : state_(std::make_unique<State>(std::move(options))) {}
FieldIndexBuilder::FieldIndexBuilder(FieldIndexBuilder&&) noexcept = default;
FieldIndexBuilder& FieldIndexBuilder::operator=(FieldIndexBuilder&&) noexcept = default;
FieldIndexBuilder::~FieldIndexBuilder() = default;

void FieldIndexBuilder::add(Bytes payload) {
  State& state = *state_;
  CHECK_LT(state.rows, UINT32_MAX);
  state.walk(&state.root, payload, 1);
  ++state.rows;
  // Often enough to stay near the limit, seldom enough to cost nothing.
  constexpr size_t kCheckEveryBytes = size_t{1} << 20;
  state.bytes_since_check += payload.size();
  if (state.bytes_since_check < kCheckEveryBytes) return;
  state.bytes_since_check = 0;
  state.keep_within_memory();
}

uint64_t FieldIndexBuilder::rows_count() const {
  return state_->rows;
}

size_t FieldIndexBuilder::memory_bytes() const {
  size_t total = 0;
  for (const Path& path : state_->paths) total += path.values.memory_bytes();
  return total;
}

std::string FieldIndexBuilder::finish() && {
  State& state = *state_;
  state.keep_within_memory();
  const std::vector<Path*> paths = state.paths_to_write();
  FieldIndexHeader header{};
  header.magic = kFieldIndexMagic;
  header.version = kFieldIndexVersion;
  header.flags = state.paths_complete ? kPathsComplete : 0;
  header.rows = state.rows;
  header.fields_count = static_cast<uint32_t>(paths.size());
  std::vector<FieldRecord> records(paths.size());
  std::string out(sizeof(header) + records.size() * sizeof(FieldRecord), '\0');
  for (size_t i = 0; i < paths.size(); ++i) {
    records[i].path_at = header.path_bytes;
    records[i].path_bytes = static_cast<uint32_t>(paths[i]->text.size());
    records[i].rows_count = paths[i]->rows_count;
    header.path_bytes += records[i].path_bytes;
    out += paths[i]->text;
  }
  Encoder(&out).pad_to(kIndexAlignment);
  for (size_t i = 0; i < paths.size(); ++i) {
    if (!paths[i]->gathering) continue;
    records[i].block_at = out.size();
    std::move(paths[i]->values).write(&out);
    records[i].block_bytes = out.size() - records[i].block_at;
    state.give_up(paths[i]);
  }
  header.bytes = out.size();
  std::memcpy(out.data(), &header, sizeof(header));
  if (!records.empty()) {
    std::memcpy(out.data() + sizeof(header), records.data(), records.size() * sizeof(FieldRecord));
  }
  state_ = std::make_unique<State>(std::move(state.options));
  return out;
}

}  // namespace aionbd
