// The handlers the route table names; each family has its file.
#pragma once

#include "server/routes.h"

namespace aionbd {

// handlers_ops.cc
Status handle_live(Call& call);
Status handle_ready(Call& call);
Status handle_version(Call& call);
Status handle_metrics(Call& call);
Status handle_metrics_prometheus(Call& call);
Status handle_distance(Call& call);
Status handle_backup(Call& call);

// handlers_collections.cc
Status handle_create_collection(Call& call);
Status handle_list_collections(Call& call);
Status handle_get_collection(Call& call);
Status handle_delete_collection(Call& call);
Status handle_collection_stats(Call& call);
Status handle_optimize(Call& call);

// handlers_points.cc
Status handle_put_point(Call& call);
Status handle_upsert(Call& call);
Status handle_get_point(Call& call);
Status handle_delete_point(Call& call);
Status handle_list_points(Call& call);
Status handle_get_points(Call& call);
Status handle_delete_points(Call& call);
Status handle_scroll(Call& call);
Status handle_count(Call& call);
Status handle_payload_set(Call& call);
Status handle_payload_delete(Call& call);

// handlers_search.cc
Status handle_search(Call& call);
Status handle_search_topk(Call& call);
Status handle_search_topk_batch(Call& call);

}  // namespace aionbd
