// Handlers of search: top 1, top k, batches. Thin: decode, one public call, encode.
#include "server/context.h"
#include "server/handlers.h"

namespace aionbd {
namespace {

/// Decodes a search of the collection the path names; the views of `request` point into `body`.
struct Prepared {
  std::shared_ptr<Collection> collection;
  SearchBody body;
  IdStyle style;
};

Status prepare(Call& call, SearchShape shape, Prepared& out) {
  if (const std::string* text = call.query("ids_as_strings")) {
    if (*text != "true" && *text != "false") {
      return invalid_argument("ids_as_strings must be true or false");
    }
    out.style.as_strings = *text == "true";
  }
  ASSIGN_OR_RETURN(out.collection, call.server.collection(call.param(0)));
  ASSIGN_OR_RETURN(out.body, decode_search(call.server.reader(), call.request.body, shape,
                                           out.collection->info().options, call.server.limits()));
  SearchRequest& request = out.body.request;
  request.filter = out.body.filter ? &*out.body.filter : nullptr;
  request.deadline = call.request.deadline;
  if (shape != SearchShape::kBatch) request.query = out.body.query(0);
  return {};
}

}  // namespace

Status handle_search(Call& call) {
  Prepared prepared;
  RETURN_IF_ERROR(prepare(call, SearchShape::kTop1, prepared));
  ASSIGN_OR_RETURN(const SearchResult result, prepared.collection->search(prepared.body.request));
  if (result.hits.empty()) {
    return invalid_argument(prepared.collection->info().points_count == 0
                                ? "the collection is empty: there is no nearest point"
                                : "no point matches: there is no nearest point");
  }
  call.response.body = encode_top1(result, prepared.body.request.explain, prepared.style);
  return {};
}

Status handle_search_topk(Call& call) {
  Prepared prepared;
  RETURN_IF_ERROR(prepare(call, SearchShape::kTopK, prepared));
  ASSIGN_OR_RETURN(const SearchResult result, prepared.collection->search(prepared.body.request));
  call.response.body = encode_topk(result, prepared.body.request.explain, prepared.style);
  return {};
}

Status handle_search_topk_batch(Call& call) {
  Prepared prepared;
  RETURN_IF_ERROR(prepare(call, SearchShape::kBatch, prepared));
  SearchBatchRequest request;
  request.common = prepared.body.request;
  for (size_t i = 0; i < prepared.body.ends.size(); ++i) {
    request.queries.push_back(prepared.body.query(i));
  }
  ASSIGN_OR_RETURN(const std::vector<SearchResult> results,
                   prepared.collection->search_batch(request));
  call.response.body = encode_topk_batch(results, prepared.body.request.explain, prepared.style);
  return {};
}

}  // namespace aionbd
