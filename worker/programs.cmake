# fl_worker: everything of the worker but main(), so that tests can link it; and the program itself.
fl_room(worker LINKS fl_engine fl_data fl_job fl_secagg fl_net fl_proto fl_adapter SOURCES
  checkpoint.c
  client.c
  client_audit.c
  client_masks.c
  client_messages.c
  client_offer.c
  client_recall.c
  client_results.c
  client_status.c
  cmd_audit.c
  cmd_check.c
  cmd_eval.c
  cmd_generate.c
  cmd_inspect.c
  cmd_join.c
  cmd_keys.c
  cmd_logits.c
  cmd_roster.c
  cmd_roster_site.c
  cmd_run.c
  cmd_status.c
  cmd_tokenize.c
  cmd_train.c
  cmd_train_words.c
  compute.c
  daemon.c
  labour.c
  ledger.c
  local.c
  masking.c
  policy.c
  progress.c
  sealing.c
  session.c
  siteconf.c
  sitestore.c
  textout.c
  trainer_native.c
  training.c
  trust.c
  trust_store.c
  validation.c)

fl_program(fedlora-worker LINKS fl_worker SOURCES main.c)
